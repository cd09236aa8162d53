"""Where model weights come from: the catalogue of packaged ones, and how a source becomes a folder that loads."""
