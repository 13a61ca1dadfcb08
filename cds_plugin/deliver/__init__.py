"""Result objects to their destinations. It must never build a result or run a model."""
