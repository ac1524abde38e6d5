"""What is seen from outside: metrics and structured logs."""
