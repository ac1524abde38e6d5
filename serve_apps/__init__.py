"""Ray Serve deployments, the HTTP gateway, the studio page and Serve config files."""
