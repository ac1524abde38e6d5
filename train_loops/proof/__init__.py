"""Shows that training works on a CPU, and makes the pretrained pair that ships. See docs/learning.md."""
