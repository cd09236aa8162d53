"""What processes of a fleet keep for each other in Redis (or Valkey), and what they do while it is away."""
