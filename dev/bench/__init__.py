"""What this provider costs, measured beside the HTTP provider."""
