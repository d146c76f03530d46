"""Reading: clips and questions as one sequence."""
