"""The Hugging Face hub: its addresses, what it says of a file, and its cache on this machine."""
