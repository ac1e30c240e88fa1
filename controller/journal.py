"""The kill journal: local, append-only, fsynced. What makes a kill survive everything but the disk."""
