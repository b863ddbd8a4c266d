"""What fsjail costs, beside what people use instead; ``make bench`` runs it and writes RESULTS.md."""
