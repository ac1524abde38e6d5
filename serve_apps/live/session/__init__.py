"""One live session at the gateway: from its client's messages to pieces for the engine, and back."""
