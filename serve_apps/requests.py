"""The fields of a conversion as clients send them, whether as a form or as JSON: checked, and turned into an order."""
