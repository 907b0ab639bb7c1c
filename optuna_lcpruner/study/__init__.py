"""What a study's completed trials say."""
