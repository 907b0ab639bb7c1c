"""What every other room may use: checks, words, storages, forks."""
