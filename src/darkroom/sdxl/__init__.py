"""What learns and draws: the model, its text, its latents, its noise schedule, and the names of its parts."""
