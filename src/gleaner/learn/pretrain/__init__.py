"""The starting weights of the classifier and the detector, learned from drawn pictures only: `make pretrain`."""
