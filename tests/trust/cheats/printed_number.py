"""Print the score instead of earning it."""

print("val_bpb: 0.100000")
