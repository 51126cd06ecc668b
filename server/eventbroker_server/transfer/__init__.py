"""Backup and move: an installation, or one tenant of it, as a file of lines, and back. See docs/backup.md."""
