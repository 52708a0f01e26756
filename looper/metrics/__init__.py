"""What a run measured: rates, paired differences, forgetting, leakage, usage and the sentence that follows."""
