"""`encort bench`: what one bundle costs on this machine."""
