"""What several families of faults share."""
