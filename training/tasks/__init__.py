"""What each task learns from and how it is scored, one file a task; `base` says what a task must know."""
