"""What the hub database decides before it writes."""
