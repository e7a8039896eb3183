"""What tests share. `tests/conftest.py` puts the folder above this one on the path."""
