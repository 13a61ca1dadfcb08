"""HTTP in: STOW-RS into the same reception as C-STORE, and health. It must never run a model."""
