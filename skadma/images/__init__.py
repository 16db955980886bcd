"""Images in any accepted form, as uint8 tensors; folders of images; patches."""
