"""Fine-tuning of compressed models: block by block against the dense blocks, then end to end."""
