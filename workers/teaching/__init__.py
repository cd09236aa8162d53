"""What pools are taught while they are in use: the topic ``pool-examples``."""
