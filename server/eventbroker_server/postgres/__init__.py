"""The truth: events, groups and progress in PostgreSQL. All SQL of the server is in the .sql files of this folder."""
