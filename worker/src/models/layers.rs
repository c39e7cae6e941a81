//! Convolution, batch normalisation and linear layers, and the register of their parameters.

use tch::{Device, Kind, TchError, Tensor};

use crate::aten;

/// Whether batch statistics and dropout are active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics normalise and move the running ones; dropout drops.
    Train,
    /// Running statistics normalise; nothing is random.
    Eval,
}

/// What a parameter is, which decides whether it decays and whether it trains while frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A convolution's or linear layer's weight: decays, frozen with its group.
    Weight,
    /// Batch normalisation's scale or shift: never decays and trains even in a frozen group, as in fastai.
    Norm,
}

/// A trainable tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the saved model, `body.layer1.0.conv1.weight`.
    pub name: String,
    /// f32; convolution weights `[out, in / groups, k, k]` lie as NHWC.
    pub tensor: Tensor,
    /// Index of its learning rate, 0 nearest to the image.
    pub group: usize,
    /// What it is.
    pub role: Role,
}

/// A tensor that is saved and not trained: a running statistic, or a part of a regression.
#[derive(Debug)]
pub struct Buffer {
    /// Its name in the saved model.
    pub name: String,
    /// f32; `[C]` for a running statistic.
    pub tensor: Tensor,
}

/// Creates layers and keeps the list of what they own.
pub(super) struct Builder {
    device: Device,
    prefix: &'static str,
    group_of: Box<dyn Fn(&str) -> usize>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) buffers: Vec<Buffer>,
}

impl Builder {
    pub(super) fn new(device: Device) -> Self {
        Self { device, prefix: "", group_of: Box::new(|_| 0), parameters: Vec::new(), buffers: Vec::new() }
    }

    /// From here on, names begin with `prefix`, and `group_of` the bare name says which group a parameter belongs to.
    pub(super) fn enter(&mut self, prefix: &'static str, group_of: impl Fn(&str) -> usize + 'static) {
        self.prefix = prefix;
        self.group_of = Box::new(group_of);
    }

    fn parameter(&mut self, name: &str, role: Role, shape: &[i64], value: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_full(shape, value, (Kind::Float, self.device))?;
        let tensor = if shape.len() == 4 { channels_last(&tensor)? } else { tensor };
        let tensor = tensor.f_set_requires_grad(true)?;
        let parameter = Parameter {
            name: format!("{}{name}", self.prefix),
            tensor: tensor.shallow_clone(),
            group: (self.group_of)(name),
            role,
        };
        self.parameters.push(parameter);
        Ok(tensor)
    }

    fn buffer(&mut self, name: &str, channels: i64, value: f64) -> Result<Tensor, TchError> {
        let tensor = self.fixed(name, &[channels])?;
        tensor.shallow_clone().f_fill_(value)
    }

    /// A tensor of zeros that is saved, and that training does not touch.
    pub(super) fn fixed(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_zeros(shape, (Kind::Float, self.device))?;
        self.buffers.push(Buffer { name: format!("{}{name}", self.prefix), tensor: tensor.shallow_clone() });
        Ok(tensor)
    }

    /// A convolution and its normalisation, under the names `conv` and `norm`.
    pub(super) fn conv_norm(
        &mut self,
        conv: &str,
        norm: &str,
        shape: ConvShape,
        eps: f64,
    ) -> Result<ConvNorm, TchError> {
        let ConvShape { inputs, outputs, kernel, groups, .. } = shape;
        let weight_shape = [outputs, inputs / groups, kernel, kernel];
        let weight = self.parameter(&format!("{conv}.weight"), Role::Weight, &weight_shape, 0.0)?;
        Ok(ConvNorm { weight, shape, norm: self.batch_norm(norm, outputs, eps)? })
    }

    pub(super) fn batch_norm(&mut self, name: &str, channels: i64, eps: f64) -> Result<BatchNorm, TchError> {
        Ok(BatchNorm {
            weight: self.parameter(&format!("{name}.weight"), Role::Norm, &[channels], 1.0)?,
            bias: self.parameter(&format!("{name}.bias"), Role::Norm, &[channels], 0.0)?,
            running_mean: self.buffer(&format!("{name}.running_mean"), channels, 0.0)?,
            running_var: self.buffer(&format!("{name}.running_var"), channels, 1.0)?,
            eps,
        })
    }

    pub(super) fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Result<Linear, TchError> {
        let weight = self.parameter(&format!("{name}.weight"), Role::Weight, &[outputs, inputs], 0.0)?;
        Ok(Linear { weight })
    }
}

/// `[N, C, H, W]` as NHWC, in tch's error type.
pub(super) fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    aten::channels_last(tensor).map_err(|error| TchError::Torch(error.to_string()))
}

/// How a strided convolution pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// k/2 on both sides, as PyTorch's models.
    Symmetric,
    /// TensorFlow's SAME: depends on the size of the input, and adds an odd pixel at the right and at the bottom.
    Same,
}

/// The numbers of a convolution without bias.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvShape {
    pub(super) inputs: i64,
    pub(super) outputs: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) groups: i64,
    pub(super) padding: Padding,
}

/// A convolution without bias, and the normalisation of what it gives.
#[derive(Debug)]
pub(super) struct ConvNorm {
    weight: Tensor,
    shape: ConvShape,
    norm: BatchNorm,
}

impl ConvNorm {
    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        match mode {
            Mode::Train => self.norm.forward(&self.shape.convolve(input, &self.weight, None)?, mode),
            Mode::Eval => {
                let (scale, shift) = self.norm.affine()?;
                let weight = self.weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?;
                self.shape.convolve(input, &weight, Some(&shift))
            }
        }
    }
}

impl ConvShape {
    fn convolve(self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
        let Self { kernel, stride, groups, padding, .. } = self;
        let convolve =
            |input: &Tensor, pad: i64| input.f_conv2d(weight, bias, [stride, stride], [pad, pad], [1, 1], groups);
        if padding == Padding::Symmetric || stride == 1 {
            return convolve(input, kernel / 2);
        }
        let size = input.size();
        let (top, bottom) = same_padding(size[2], kernel, stride);
        let (left, right) = same_padding(size[3], kernel, stride);
        convolve(&input.f_constant_pad_nd([left, right, top, bottom])?, 0)
    }
}

/// TensorFlow's SAME padding of one axis: (before, after).
fn same_padding(size: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let outputs = (size + stride - 1) / stride;
    let total = ((outputs - 1) * stride + kernel - size).max(0);
    (total / 2, total - total / 2)
}

/// Batch normalisation with momentum 0.1.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: f64,
}

impl BatchNorm {
    /// The `x * scale + shift` by channel that the normalisation amounts to in [`Mode::Eval`]. The convolution before it can apply
    /// both, which saves a pass over the feature map and, in bf16, a rounding.
    fn affine(&self) -> Result<(Tensor, Tensor), TchError> {
        let scale = self.weight.f_mul(&self.running_var.f_add_scalar(self.eps)?.f_rsqrt()?)?;
        let shift = self.bias.f_sub(&self.running_mean.f_mul(&scale)?)?;
        Ok((scale, shift))
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        Tensor::f_batch_norm(
            input,
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode == Mode::Train,
            0.1,
            self.eps,
            true,
        )
    }
}

/// A linear layer without bias.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
}

impl Linear {
    /// The kind of its weights.
    pub(super) fn kind(&self) -> Kind {
        self.weight.kind()
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_linear(&self.weight, None::<&Tensor>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_pixel_last_and_depends_on_the_input_size() {
        assert_eq!(same_padding(224, 3, 2), (0, 1));
        assert_eq!(same_padding(224, 5, 2), (1, 2));
        assert_eq!(same_padding(225, 3, 2), (1, 1));
        assert_eq!(same_padding(7, 5, 2), (2, 2));
    }

    #[test]
    fn a_same_convolution_halves_an_even_and_an_odd_input_upwards() {
        let mut builder = Builder::new(Device::Cpu);
        let shape = ConvShape { inputs: 3, outputs: 4, kernel: 3, stride: 2, groups: 1, padding: Padding::Same };
        let conv = builder.conv_norm("conv", "norm", shape, 1e-3).unwrap();
        for (size, expected) in [(224, 112), (7, 4)] {
            let input = Tensor::zeros([1, 3, size, size], (Kind::Float, Device::Cpu));
            let output = conv.forward(&input, Mode::Train).unwrap();
            assert_eq!(output.size(), [1, 4, expected, expected]);
        }
    }
}
