"""The log, the printed lines, and untrusted text in both."""
