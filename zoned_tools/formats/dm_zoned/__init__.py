"""dm-zoned: the Linux device-mapper target that makes zoned drives look like regular ones."""
