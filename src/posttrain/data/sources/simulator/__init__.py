"""Simulated preferences whose truth is known: tasks, annotators, editors."""
