"""What the modules of linen's layers (`models`) and of nnx's (`nnx_models`) have in common."""
