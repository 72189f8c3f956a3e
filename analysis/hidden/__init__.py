"""What `analysis.hidden_facts` is made of: one file for each fact that a log hides from its reader."""
