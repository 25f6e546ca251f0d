"""Families of programs: questions that look alike, and whose only difference is a program."""
