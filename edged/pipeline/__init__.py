"""Events → model inputs, model outputs → results: windows, features, labels, calibration, alarms. Pure; numpy."""
