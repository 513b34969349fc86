"""What a meta-learned initialization is worth on new tasks."""
