"""Networks as one native call: their description, their file, and how they run."""
