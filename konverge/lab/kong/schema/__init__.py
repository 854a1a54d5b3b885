"""Kong's entity schemas as data, and the engine that validates and fills entities with them.

Names, defaults and limits follow the public schemas of Kong 3.9; the texts of errors follow what a real Kong answers.
"""
