"""Live conversion as a service: sessions at the gateway, and the engines and the desk behind them."""
