"""What travels on the topics: envelope, headers, schemas, and what is said of bytes that are none of it."""
