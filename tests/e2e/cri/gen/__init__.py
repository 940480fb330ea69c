"""Generated from cri.proto by tools/generate_proto.py. Do not edit."""
