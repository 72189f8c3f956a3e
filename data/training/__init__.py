"""The scripts that trained the runs in `data/samples`: small real models, on the CPU, recorded by our own Recorder."""
