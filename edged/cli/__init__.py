"""The verbs of `edged`, one module each; `main` finds them by name."""
