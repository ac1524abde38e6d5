"""RVC-Nano's RunPod API, and TorchServe's."""
