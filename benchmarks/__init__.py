"""What is measured, a command each: `encort bench` for any bundle, scripts for this project's own claims."""
