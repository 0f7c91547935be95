// Package upgrade holds that the driver can be upgraded, and taken back, while volumes are in use: executables of the former
// mechanism of claims and today's work on one array at once, as processes of their own.
package upgrade
