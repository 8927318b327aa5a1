def render_fidelity(fidelity, profile, folder):
    return ""
