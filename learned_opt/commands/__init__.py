"""The command line: one thin file for each verb, and the front door that finds it."""
