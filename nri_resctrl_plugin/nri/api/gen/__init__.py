"""Generated from nri.proto by tools/generate_proto.py. Do not edit."""
