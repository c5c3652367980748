"""What runs programs and keeps their results: replicas over devices, shared compiled programs, checkpoints."""
