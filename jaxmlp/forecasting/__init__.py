"""What course a run will take, told before its first step."""
